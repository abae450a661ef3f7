"""The check of the modules, on made-up crates: a file for each module, and what is found there."""

from pathlib import Path

import pytest

from dev.checks import modules


@pytest.fixture(autouse=True)
def _inside_crate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def findings(**code: str) -> list[str]:
    """Write a crate, a `__` in a module's name being the next folder, and check it."""
    for module, text in code.items():
        file = Path(f"{module.replace('__', '/')}.rs")
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    return modules.findings(Path("lib.rs"))


def test_siblings_children_and_other_crates_may_be_used() -> None:
    found = findings(
        lib="pub mod a; mod b; use a::A;",
        a="mod x; mod y; pub use x::X; use std::fmt; fn f() { y::g() }",
        a__x="use super::y::{self, Y}; use crate::b::B; pub(in crate::a) struct X;",
        a__y="use serde::de::{Deserialize, Visitor as V};",
        b="impl<'a, 'b> C<'b> for B {} mod c { use super::B; }",
    )

    assert found == []


def test_item_of_parent_is_found() -> None:
    found = findings(lib="mod a;", a="mod x;", a__x="\nuse super::{\n    Item as Other, y,\n};")

    assert found == [
        "a/x.rs:3: a::x uses Item of its ancestor a",
        "a/x.rs:3: a::x uses y of its ancestor a",
    ]


def test_item_of_root_is_found_outside_of_use() -> None:
    found = findings(lib="mod a;", a="mod x;", a__x="fn f() -> crate::Item {}")

    assert found == ["a/x.rs:1: a::x uses Item of its ancestor crate"]


def test_inline_module_may_not_reach_over_its_file() -> None:
    found = findings(lib="mod a;", a="mod inline {\n use super::A;\n use super::super::Item;\n}")

    assert found == ["a.rs:3: a uses Item of its ancestor crate"]


def test_circle_is_printed_as_chain() -> None:
    found = findings(
        lib="mod a; mod b; mod c;",
        a="use crate::b::B;",
        b="use super::c;",
        c="\nfn f() { crate::a::g() }",
    )

    assert found == ["a.rs:1: circle a -> b -> c -> a, see also b.rs:1, c.rs:2"]


def test_circle_between_siblings_in_a_folder_is_found() -> None:
    found = findings(lib="mod a;", a="mod x; mod y;", a__x="use super::y;", a__y="use super::x;")

    assert found == ["a/x.rs:1: circle a::x -> a::y -> a::x, see also a/y.rs:1"]


def test_circle_of_folders_alone_is_found() -> None:
    found = findings(
        lib="mod a; mod b;",
        a="mod x; mod y;",
        a__x="use crate::b::z::Z;",
        a__y="",
        b="mod w; mod z;",
        b__w="use crate::a::y::Y;",
        b__z="",
    )

    assert found == ["a/x.rs:1: circle a -> b -> a, see also b/w.rs:1"]


def test_each_circle_is_found_once() -> None:
    found = findings(
        lib="mod a; mod b; mod c;",
        a="use crate::{b, c};",
        b="use crate::a;",
        c="use crate::a;",
    )

    assert found == [
        "a.rs:1: circle a -> b -> a, see also b.rs:1",
        "a.rs:1: circle a -> c -> a, see also c.rs:1",
    ]


@pytest.mark.parametrize(
    "harmless",
    [
        "// use super::Item;",
        "/* use super::Item; */",
        '/// ```\n/// use crate::Item;\nconst A: &str = "\\" use super::Item;";',
        'const A: &str = r#"" use super::Item;"#;',
        "const A: char = '\"'; const B: char = '\\''; // use super::Item;",
        "#[cfg(test)]\nmod tests { use super::*; fn f() { if a { } } use crate::Item; }",
        "#[cfg(test)]\n#[allow(unused)]\nuse super::Item;",
        "#[cfg(test)]\nmod tests;",
        "pub(in super::super) struct A;",
        "macro_rules! a { () => { $crate::Item } }",
    ],
)
def test_comments_strings_and_tests_are_ignored(harmless: str) -> None:
    assert findings(lib="mod a;", a=harmless, a__tests="use crate::Item;") == []


def test_code_between_strings_and_tests_is_read() -> None:
    code = """
        /* a */ const A: &[char] = &['"', '\\\\', '\\''];
        #[cfg(test)]
        mod tests { { } }
        use super as parent;
        const B: char = '"'; /* b */
    """

    found = findings(lib="mod a;", a=code)

    assert found == ["a.rs:5: a uses self of its ancestor crate"]


def test_module_without_file_is_an_error() -> None:
    with pytest.raises(SystemExit, match=r"lib\.rs: the file of module a was not found"):
        findings(lib="mod a;")


def test_roots_of_all_members_are_found(tmp_path: Path) -> None:
    roots = ["src/lib.rs", "src/main.rs", "src/bin/one.rs", "crates/b/src/lib.rs"]
    (tmp_path / "Cargo.toml").write_text('[workspace]\nmembers = ["crates/*"]\n')
    for root in roots:
        file = tmp_path / root
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()

    assert modules.crate_roots(tmp_path) == [tmp_path / root for root in roots]
