"""scene.pace: a slow segmenter runs more seldom, a quick one on every picture, and the choice does not flutter."""

from streamgc.scene.pace import WINDOW, Pace


def run(pace: Pace, milliseconds: float, times: int) -> list[int]:
    return [pace.took(milliseconds) for _ in range(times)]


def test_a_quick_segmenter_sees_every_picture() -> None:
    assert set(run(Pace(fps=15.0), 5.0, 100)) == {1}


def test_a_slow_one_sees_every_nth_and_comes_back() -> None:
    pace = Pace(fps=15.0, share=0.3, most=4)  # 20 ms a picture
    assert run(pace, 45.0, 6 * WINDOW)[-1] == 3
    assert run(pace, 500.0, 6 * WINDOW)[-1] == 4
    assert run(pace, 5.0, 6 * WINDOW)[-1] == 1


def test_one_slow_run_changes_nothing_and_the_edge_does_not_flutter() -> None:
    pace = Pace(fps=15.0)
    run(pace, 5.0, WINDOW)
    assert pace.took(400.0) == 1
    edge = Pace(fps=15.0)
    seen = [edge.took(19.0 if number % 2 else 21.0) for number in range(200)]
    assert sum(now != before for now, before in zip(seen[1:], seen, strict=False)) <= 1
