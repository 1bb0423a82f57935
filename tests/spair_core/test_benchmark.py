from spair_core import benchmark


def test_all_parts_of_a_frame_are_timed(capsys, monkeypatch):
    for module in (benchmark.torch, benchmark.cv2):
        for name in ("set_num_threads", "setNumThreads"):
            monkeypatch.setattr(module, name, lambda count: None, raising=False)
    benchmark.main(["--sizes", "64x48", "--rounds", "1", "--run", "2"])
    head, line = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["frame", "references", "network", "whole"]
    beside, network, whole, rate = (float(line.split()[place]) for place in (1, 3, 5, 7))
    assert beside > 0 < network
    assert rate == __import__("pytest").approx(1000 / whole, rel=0.1)
