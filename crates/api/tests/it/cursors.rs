//! The API reads each place that the pattern allows, and refuses all others.

use login_etl_api::cursor::{NumberThenKey, NumberThenRank};
use login_etl_api::parameters::{Day, Token};
use proptest::prelude::*;

proptest! {
    #[test]
    fn well_formed_place_is_read(number in "[0-9]{1,15}", key in "[0-9a-f]{64}", rank in "[0-9]{1,15}") {
        let place = NumberThenKey::try_from(format!("{number},{key}")).unwrap();
        let ranked = NumberThenRank::try_from(format!("{number},{rank}")).unwrap();

        prop_assert_eq!((place.number, place.key), (number.parse().unwrap(), key));
        prop_assert_eq!((ranked.number, ranked.rank), (number.parse().unwrap(), rank.parse().unwrap()));
    }

    #[test]
    fn other_text_is_refused(text in "\\PC{0,90}") {
        let is_place = |text: &str| {
            let (number, key) = text.split_once(',')?;
            let is_number = (1..=15).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
            (is_number && Token::try_from(key.to_owned()).is_ok()).then_some(())
        };

        prop_assert_eq!(NumberThenKey::try_from(text.clone()).is_ok(), is_place(&text).is_some());
    }

    #[test]
    fn day_of_a_number_has_this_number(number in 0_i64..3_652_059) {
        let day = Day::numbered(number);

        prop_assert_eq!(day.number(), number);
        prop_assert_eq!(Day::try_from(day.to_string()), Ok(day));
    }
}

#[test]
fn large_number_is_the_last_day() {
    for number in [3_652_058, 3_652_059, 999_999_999_999_999, i64::MAX] {
        assert_eq!(Day::numbered(number).to_string(), "9999-12-31");
    }
    assert_eq!(Day::numbered(0).to_string(), "0001-01-01");
}
