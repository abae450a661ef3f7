//! Tables that users have made, and the columns of the files.

use login_etl_export::error::RunError;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::support::{Lake, noon_after, rows};

/// Makes another table of the same name, with rows of 14 November that the ledger does not have.
async fn with_table(columns: &str, row: &str) -> Lake {
    let lake = Lake::without_books().await;
    let statements = format!(
        "DROP TABLE user_logins; CREATE DOMAIN token AS text; CREATE TABLE user_logins ({columns});
         GRANT SELECT ON user_logins TO login_reader; INSERT INTO user_logins VALUES ({row})"
    );
    lake.execute(&statements).await;
    lake.create_books().await;
    lake.execute("SELECT lake.mark_changed('2026-11-14', -1)").await;
    lake
}

#[tokio::test]
async fn other_types_of_text_and_date_are_exported() {
    let columns =
        "create_date timestamp, app_version smallint, secret text, user_id text, device_type char(8),
        masked_ip token, masked_device_id varchar, locale char(5)";
    let lake = with_table(columns, "'2026-11-14 23:59', 7, 'hunter2', 'u', 'ios', 'a', 'b', NULL").await;

    let exported = lake.exported(noon_after(0)).await;

    assert_eq!(exported, (1, 1));
    let object = lake.object("user_logins/dt=2026-11-14/part-00000.parquet").await;
    let [row] = &rows(object)[..] else { panic!("one row was expected") };
    assert_eq!(row.texts.clone().map(Option::unwrap_or_default), ["u", "ios", "a", "b", ""]);
    assert_eq!((row.app_version, row.create_date), (Some(7), Some(20_771)));
}

#[tokio::test]
async fn wrong_columns_are_named() {
    let all = "user_id text, device_type text, masked_ip text, masked_device_id text, locale text, app_version integer";
    for (columns, row, expected) in [
        (
            format!("{all}, create_date timestamptz"),
            "'u'",
            "the column create_date of user_logins has the type timestamp with time zone, and the export reads only date, \
             timestamp without time zone",
        ),
        (
            format!("{}, create_date date", all.replace("app_version integer", "app_version numeric(9)")),
            "'u'",
            "the column app_version of user_logins has the type numeric(9,0), and the export reads only integer, smallint",
        ),
    ] {
        let lake = with_table(&columns, row).await;

        let report = lake.export(noon_after(0)).await;

        assert_eq!(report.error.unwrap().to_string(), expected);
        assert_eq!((report.failures, lake.keys().await.len()), (1, 0));
    }
}

#[tokio::test]
async fn missing_column_is_named() {
    let lake = Lake::create().await;
    lake.execute("ALTER TABLE user_logins DROP COLUMN locale").await;

    let report = lake.export(noon_after(0)).await;

    let error = report.error.unwrap();
    assert!(matches!(&error, RunError::NoColumn { column } if column == "locale"), "{error}");
}

#[tokio::test]
async fn missing_books_are_named() {
    let lake = Lake::create().await;
    lake.execute("COMMENT ON SCHEMA lake IS 'of another version'").await;
    let of_another_version = lake.export(noon_after(0)).await;
    lake.execute("DROP SCHEMA lake CASCADE").await;
    let without = lake.export(noon_after(0)).await;

    for report in [of_another_version, without] {
        let text = "the schema lake is not there, or of another version: run migrate with EXPORT=true";
        assert_eq!(report.error.unwrap().to_string(), text);
    }
}

/// A policy that hides rows from the role would make the day smaller.
#[tokio::test]
async fn row_security_is_an_error() {
    let lake = Lake::create().await;
    lake.log_in("2026-11-14", 1).await;
    lake.execute("ALTER TABLE user_logins ENABLE ROW LEVEL SECURITY").await;

    let report = lake.export(noon_after(0)).await;

    let error = report.error.unwrap().to_string();
    assert!(error.ends_with("Postgres refused the statement, SQLSTATE 42501"), "{error}");
    assert_eq!(lake.keys().await.len(), 0);
}

/// A new column of the files is a decision about personal data.
#[tokio::test]
async fn files_have_exactly_these_columns() {
    let lake = Lake::create().await;
    lake.log_in("2026-11-14", 1).await;
    lake.exported(noon_after(0)).await;

    let object = lake.object("user_logins/dt=2026-11-14/part-00000.parquet").await;
    let reader = ParquetRecordBatchReaderBuilder::try_new(object).unwrap();

    let file = reader.metadata().file_metadata();
    let columns: Vec<_> = file
        .schema_descr()
        .columns()
        .iter()
        .map(|column| {
            let logical = column.logical_type_ref().map(|logical| format!("{logical:?}"));
            (column.name(), column.physical_type().to_string(), logical, column.max_def_level())
        })
        .collect();
    let text = |name| (name, "BYTE_ARRAY".to_owned(), Some("String".to_owned()), 1);
    let expected = [
        text("user_id"),
        text("device_type"),
        text("masked_ip"),
        text("masked_device_id"),
        text("locale"),
        ("app_version", "INT32".to_owned(), None, 1),
        ("create_date", "INT32".to_owned(), Some("Date".to_owned()), 1),
    ];
    assert_eq!(columns, expected);
    assert_eq!(file.key_value_metadata(), None);
    assert_eq!(file.version(), 1);
    let compression =
        reader.metadata().row_group(0).columns().iter().map(|column| column.compression().to_string());
    assert!(compression.into_iter().all(|codec| codec.starts_with("ZSTD")));
}

/// The same rows give the same bytes.
#[tokio::test]
async fn equal_rows_make_an_equal_file() {
    let lake = Lake::create().await;
    lake.log_in("2026-11-14", 300).await;
    lake.exported(noon_after(0)).await;
    let first = lake.object("user_logins/dt=2026-11-14/part-00000.parquet").await;
    lake.execute("SELECT lake.mark_changed('2026-11-14')").await;

    lake.exported(noon_after(1)).await;

    let second = lake.object("user_logins/dt=2026-11-14/part-00000.parquet").await;
    assert!(first == second, "the files differ");
}
