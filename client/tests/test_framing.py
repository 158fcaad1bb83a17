import itertools

from codex_app_server.protocol.framing import LineSplitter, Oversized
from hypothesis import example, given
from hypothesis import strategies as st


# Bytes alone hold hardly any newline, and none behind a cut.
@given(
    st.binary(max_size=200) | st.text("ab\n", max_size=200).map(str.encode),
    st.lists(st.integers(0, 200), max_size=8),
)
@example(b'{"id":1}\n{"id":2}\n{"id":3}', [3, 12, 18])
def test_lines_do_not_depend_on_how_the_bytes_are_cut(data: bytes, cuts: list[int]) -> None:
    splitter = LineSplitter()
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    lines = []
    for start, end in itertools.pairwise(edges):
        lines += splitter.feed(data[start:end])
    lines += splitter.finish()
    expected = data.split(b"\n")
    assert lines == (expected if expected[-1] else expected[:-1])
    assert splitter.buffered == 0


@given(
    st.lists(st.binary(max_size=40).filter(lambda b: b"\n" not in b), max_size=10),
    st.integers(1, 30),
    st.integers(1, 50),
)
def test_only_lines_over_the_cap_are_replaced_and_their_size_is_told(
    lines: list[bytes], cap: int, step: int
) -> None:
    splitter = LineSplitter(cap)
    data = b"".join(line + b"\n" for line in lines)
    found = []
    for start in range(0, len(data), step):
        found += splitter.feed(data[start : start + step])
    sizes = [line.size if isinstance(line, Oversized) else line for line in found]
    assert sizes == [len(line) if len(line) > cap else line for line in lines]
    for line, whole in zip(found, lines, strict=True):
        assert not isinstance(line, Oversized) or whole.startswith(line.head)


def test_an_endless_line_over_the_cap_costs_no_memory() -> None:
    splitter = LineSplitter(1000)
    for _ in range(100):
        assert splitter.feed(b"x" * 500) == []
    assert splitter.buffered == 0
    (line, after) = splitter.feed(b"tail\nnext\n")
    assert isinstance(line, Oversized)
    assert line.size == 50004
    assert set(line.head) == {ord("x")}
    assert 0 < len(line.head) <= 1024
    assert after == b"next"
