"""Checks: what makes a row acceptable, said once, in SQL, for millions of rows at a time.

A row goes through three steps: its texts are trimmed, then parsed, then judged. Each check names a
column, how its text is parsed, the value that is kept, and the reasons to turn a row away.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from customers import money
from customers.sources.files import literal, quoted

# Beyond this a float could no longer tell two neighbouring amounts apart.
LARGEST_MINOR = 9 * 10**15
# A source, an order and a line together must fit into one entry of PostgreSQL's index, of 2,704 bytes.
LONGEST_ID = 200
# Wide enough for any price, and narrow enough that it is computed in machine words.
DECIMAL = "decimal(18, 6)"
TIME = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}([.,]\d+)?)?( ?([zZ]|[+-]\d{2}(:?\d{2})?))?)?$"
OFFSET = r"\d{2}:\d{2}.*([zZ]|[+-]\d{2}(:?\d{2})?)$"


@dataclass(frozen=True, slots=True)
class Check:
    """A column: `parsed` expressions over the trimmed texts, the `value` over those, and (condition, reason)."""

    name: str
    value: str
    wrong: tuple[tuple[str, str], ...] = ()
    parsed: tuple[tuple[str, str], ...] = ()


def checked(checks: Sequence[Check], columns: Sequence[str]) -> str:
    """The query that takes `raw` to values and a `reason`, which is null for a row that can be kept."""
    texts = ", ".join(f"{text(name)} as {quoted(name)}" for name in columns)
    parsed = "".join(f", {expression} as {alias}" for check in checks for alias, expression in check.parsed)
    values = ", ".join(f"{check.value} as {quoted(check.name)}" for check in checks)
    cases = " ".join(f"when {condition} then '{reason}'" for check in checks for condition, reason in check.wrong)
    return f"""select file_no, row_no, {values}, case {cases} end as reason, false as again
               from (select *{parsed} from (select file_no, row_no, {texts} from raw))"""


def text(name: str) -> str:
    """A raw column's text without blanks around it; empty is null."""
    return f"nullif(trim(replace({quoted(name)}, chr(0), '')), '')"


def words(name: str) -> Check:
    """Any text."""
    return Check(name, quoted(name))


def identifier(name: str) -> Check:
    """An id that must be there."""
    return Check(name, quoted(name), ((f"{quoted(name)} is null", f"{name} is empty"), *reference(name).wrong))


def reference(name: str) -> Check:
    """An id that may be missing."""
    too_long = (f"length({quoted(name)}) > {LONGEST_ID}", f"{name} is longer than {LONGEST_ID} characters")
    return Check(name, quoted(name), (too_long,))


def choice(name: str, allowed: Sequence[str], default: str | None = None) -> Check:
    """One of a few words."""
    said = f"lower({quoted(name)})"
    listed = ", ".join(literal(word) for word in allowed)
    value = f"coalesce({said}, {literal(default)})" if default else said
    return Check(name, value, ((f"{said} not in ({listed})", f"{name} is none of {', '.join(allowed)}"),))


def number(name: str, *, required: bool = False) -> Check:
    """A finite decimal number, as a double."""
    parsed = f"{name}__p"
    return Check(
        name,
        f"{parsed}::double",
        _unreadable(name, parsed, "a number", required),
        ((parsed, f"try_cast({quoted(name)} as {DECIMAL})"),),
    )


def amount(name: str, *, required: bool = False, negative: bool = True) -> Check:
    """Money in minor units of the row's currency (see `currency`), a half rounded to the even neighbour."""
    parsed = f"{name}__p"
    scaled = f"({parsed} * currency__units)"
    wrong = _unreadable(name, parsed, "an amount", required)
    wrong += ((f"abs({scaled}) > {LARGEST_MINOR}", f"{name} is too large"),)
    if not negative:
        wrong += ((f"{parsed} < 0", f"{name} is negative"),)
    value = f"try_cast({half_even(scaled)} as bigint)"
    return Check(f"{name}_minor", value, wrong, ((parsed, f"try_cast({_short(quoted(name))} as {DECIMAL})"),))


def _short(said: str) -> str:
    """A number with more than six decimals, cut to six so that it rounds to cents as the whole number would.

    No currency has more than four decimals: a half is told by the fifth, and whether there is anything beyond
    it by the sixth. Rounding to six and then to cents would round twice.
    """
    beyond = f"case when regexp_matches({said}, '^[+-]?\\d*\\.\\d{{5}}0*$') then '0' else '1' end"
    cut = f"concat(regexp_extract({said}, '^[+-]?\\d*\\.\\d{{5}}'), {beyond})"
    long = f"length({said}) > 7 and regexp_matches({said}, '^[+-]?\\d*\\.\\d{{7,}}$')"
    return f"case when {long} then {cut} else {said} end"


def half_even(value: str) -> str:
    """Round a decimal to a whole number; a half goes to the even neighbour."""
    tie = f"abs({value} - trunc({value})) = 0.5 and trunc({value}) % 2 = 0"
    return f"(case when {tie} then trunc({value}) else round({value}) end)"


def currency(default: str) -> Check:
    """The code in column `currency`, else the shop's own, and how many minor units it has for `amount`."""
    code = f"coalesce(upper(currency), {literal(default)})"
    by_digits: dict[int, list[str]] = {}
    for known, digits in money.EXPONENTS.items():
        by_digits.setdefault(digits, []).append(literal(known))
    cases = [f"when {code} in ({', '.join(codes)}) then {10**digits}" for digits, codes in by_digits.items()]
    return Check(
        "currency",
        "currency__p",
        (("currency__units is null", "currency is not an ISO 4217 code"),),
        (("currency__p", code), ("currency__units", f"(case {' '.join(cases)} end)::decimal(5, 0)")),
    )


def instant(name: str, timezone: str, *, required: bool = False) -> Check:
    """A time as microseconds since 1970 in UTC; one without an offset is in the shop's zone."""
    said, parsed = quoted(name), f"{name}__p"
    with_offset = f"try_cast({said} as timestamptz)"
    in_zone = f"timezone({literal(timezone)}, try_cast({said} as timestamp))"
    read = f"case when regexp_matches({said}, {literal(OFFSET)}) then {with_offset} else {in_zone} end"
    value = f"case when regexp_matches({said}, {literal(TIME)}) then epoch_us({read}) end"
    return Check(name, parsed, _unreadable(name, parsed, "an ISO 8601 time", required), ((parsed, value),))


def day(name: str) -> Check:
    """A date, kept as its ISO text."""
    parsed = f"{name}__p"
    value = f"strftime(try_cast({quoted(name)} as date), '%Y-%m-%d')"
    return Check(name, parsed, _unreadable(name, parsed, "a date", False), ((parsed, value),))


def flag(name: str) -> Check:
    """Yes or no; no where nothing is said."""
    said = f"lower({quoted(name)})"
    yes, no = "('true', '1', 'yes', 't', 'y')", "('false', '0', 'no', 'f', 'n')"
    wrong = ((f"{said} not in {yes} and {said} not in {no}", f"{name} is neither true nor false"),)
    return Check(name, f"coalesce({said} in {yes}, false)", wrong)


def json_object(name: str) -> Check:
    """A JSON object, kept as its text."""
    said = quoted(name)
    bad = f"{said} is not null and not (case when json_valid({said}) then json_type({said}) = 'OBJECT' else false end)"
    return Check(name, said, ((bad, f"{name} is not an object"),))


def listed(name: str, allowed: Sequence[str] = ()) -> Check:
    """A list of texts, written as JSON or with semicolons: each once, in order; nothing is an empty list."""
    said, parsed = quoted(name), f"{name}__p"
    is_list = f"case when json_valid({said}) then json_type({said}) = 'ARRAY' else false end"
    parts = f"""case when {is_list} then from_json({said}, '["VARCHAR"]') else string_split({said}, ';') end"""
    texts = f"list_filter([trim(part) for part in {parts}], lambda part: part <> '')"
    found = f"coalesce(list_sort(list_distinct({texts})), [])"
    if not allowed:
        too_long = f"len(list_filter({parsed}, lambda part: length(part) > {LONGEST_ID})) > 0"
        wrong = (too_long, f"{name} has a part longer than {LONGEST_ID} characters")
        return Check(name, parsed, (wrong,), ((parsed, found),))
    found = f"coalesce(list_sort(list_distinct([lower(part) for part in {texts}])), [])"
    known = ", ".join(literal(word) for word in allowed)
    wrong = (f"not list_has_all([{known}], {parsed})", f"{name} has something other than {', '.join(allowed)}")
    return Check(name, parsed, (wrong,), ((parsed, found),))


def scale(name: str, lowest: int, highest: int) -> Check:
    """A whole number between two."""
    parsed = f"{name}__p"
    read = f"try_cast({quoted(name)} as {DECIMAL})"
    inside = f"{parsed} between {lowest} and {highest} and {parsed} = trunc({parsed})"
    wrong = f"{quoted(name)} is not null and not coalesce({inside}, false)"
    reason = f"{name} is not a whole number from {lowest} to {highest}"
    return Check(name, f"{parsed}::integer", ((wrong, reason),), ((parsed, read),))


def past(name: str, timezone: str, *, latest: int, required: bool = False) -> Check:
    """An instant since 1970 that is not later than `latest`."""
    check = instant(name, timezone, required=required)
    ahead = (f"{check.value} > {latest}", f"{name} is in the future")
    ancient = (f"{check.value} < 0", f"{name} is before 1970")
    return Check(name, check.value, (*check.wrong, ahead, ancient), check.parsed)


def _unreadable(name: str, parsed: str, what: str, required: bool) -> tuple[tuple[str, str], ...]:
    said = quoted(name)
    wrong = ((f"{said} is not null and {parsed} is null", f"{name} is not {what}"),)
    return ((f"{said} is null", f"{name} is empty"), *wrong) if required else wrong
