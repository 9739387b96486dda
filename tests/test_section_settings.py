"""Settings from text: where they go, and what is said of those that are impossible."""

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from megasbp.errors import InputError
from megasbp.section_settings import apply_setting, describe, read_values, section_of, section_of_options


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    depth: int = Field(1, ge=1)
    breadth: int = 1


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    rate: float = Field(0.5, le=1)
    word: str = "a"
    inner: Inner = Inner()
    other: Inner | None = None

    @model_validator(mode="after")
    def _agree(self) -> "Outer":
        if self.word == "b" and self.rate == 1:
            raise ValueError("outer.word is 'b' and outer.rate is 1; set another outer.rate")
        return self


class Needy(BaseModel):
    size: int


def applied(*settings: str) -> dict[str, object]:
    values: dict[str, object] = {}
    for setting in settings:
        apply_setting(values, setting, "a setting; write key=value")
    return values


def test_settings_go_to_their_places():
    assert applied("a.b=1", "a.c=[1, 2]", "d=word", "a.b=2.5", 'e="3"') == {
        "a": {"b": 2.5, "c": [1, 2]},
        "d": "word",
        "e": "3",
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["a"], "'a' is not a setting; write key=value"),
        (["=1"], "'=1' is not a setting; write key=value"),
        (["a=1", "a.b=2"], "'a.b=2': a is a value, not a section"),
        (["a.b=1", "a.b.c=2"], "'a.b.c=2': b is a value, not a section"),
    ],
)
def test_what_is_no_setting_is_refused(settings, message):
    with pytest.raises(InputError) as refused:
        applied(*settings)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"rat": 1}, "rat: unknown setting; did you mean 'rate'?"),
        ({"xyz": 1}, "xyz: unknown setting; known here: inner, other, rate, word"),
        ({"inner": {"dept": 1}}, "inner.dept: unknown setting; did you mean 'depth'?"),
        ({"other": {"q": 1}}, "other.q: unknown setting; known here: breadth, depth"),
        ({"rate": 2}, "rate: Input should be less than or equal to 1, not 2"),
        (
            {"rate": 2, "inner": {"depth": 0}},
            "rate: Input should be less than or equal to 1, not 2 (and 1 more)",
        ),
        ({"word": "b", "rate": 1}, "outer.word is 'b' and outer.rate is 1; set another outer.rate"),
        ({"inner": 3}, "inner: Input should be a valid dictionary or instance of Inner, not 3"),
    ],
)
def test_an_impossible_section_is_one_line(values, line):
    with pytest.raises(ValidationError) as invalid:
        Outer.model_validate(values)
    assert describe(invalid.value, Outer) == line


def test_what_is_missing_is_named():
    with pytest.raises(ValidationError) as invalid:
        Needy.model_validate({})
    assert describe(invalid.value, Needy) == "size: missing; set it"


def test_sections_that_do_not_agree_are_not_printed_whole():
    class Whole(BaseModel):
        outer: Outer

    with pytest.raises(ValidationError) as invalid:
        Whole.model_validate({"outer": {"word": "b", "rate": 1}})
    line = "outer: outer.word is 'b' and outer.rate is 1; set another outer.rate"
    assert describe(invalid.value, Whole) == line


def test_settings_replace_those_of_the_section_and_leave_it_alone():
    recipe = {"outer": {"rate": 0.1, "inner": {"breadth": 3}}}
    section = section_of(Outer, "outer", recipe, ["inner.depth=4", "outer.word=c"])
    assert section == Outer(rate=0.1, word="c", inner=Inner(depth=4, breadth=3))
    assert recipe == {"outer": {"rate": 0.1, "inner": {"breadth": 3}}}
    assert section_of(Outer, "outer", {}) == Outer()


@pytest.mark.parametrize(
    ("recipe", "settings", "message"),
    [
        ({}, ["inner=1", "inner.depth=2"], "'inner.depth=2': inner is a value, not a section"),
        ({}, ["outer.rate=2"], "rate: Input should be less than or equal to 1, not 2"),
        ({"outer": 3}, [], "outer = 3: is a value, not a section"),
    ],
)
def test_an_impossible_setting_is_refused(recipe, settings, message):
    with pytest.raises(InputError) as refused:
        section_of(Outer, "outer", recipe, settings)
    assert str(refused.value) == message


def test_options_that_are_not_given_leave_the_default():
    assert section_of_options(Outer, "outer", {"rate": None, "word": "c"}) == Outer(word="c")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rate": 2.0}, "--rate: Input should be less than or equal to 1, not 2.0"),
        ({"word": "b", "rate": 1.0}, "--word is 'b' and --rate is 1; set another --rate"),
    ],
)
def test_an_impossible_option_is_named_as_it_was_given(options, message):
    with pytest.raises(InputError) as refused:
        section_of_options(Outer, "outer", options)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.toml", "no such recipe"),
        ("folder", "a folder; name the recipe's .toml file"),
        ("broken.toml", "not valid TOML"),
    ],
)
def test_a_recipe_that_cannot_be_read_is_named(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken.toml").write_text("name = ")
    with pytest.raises(InputError, match=message) as refused:
        read_values(tmp_path / name)
    assert str(refused.value).startswith(f"{tmp_path / name}: ")
