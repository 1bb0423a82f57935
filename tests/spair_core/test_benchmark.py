from spair_core import benchmark
from spair_core.benchmark import BenchmarkConfig


def test_both_parts_of_a_frame_are_timed(capsys, monkeypatch):
    for module in (benchmark.torch, benchmark.cv2):
        for name in ("set_num_threads", "setNumThreads"):
            monkeypatch.setattr(module, name, lambda count: None, raising=False)
    benchmark.main(BenchmarkConfig(sizes=((48, 64),), rounds=1))
    head, line = capsys.readouterr().out.splitlines()
    assert head.split() == ["frame", "references", "network", "ratio"]
    beside, network = float(line.split()[1]), float(line.split()[3])
    assert beside > 0 < network
