"""Reading and writing beside the model; what they give is tested through the whole stream."""

import subprocess
import sys


def test_what_reads_and_writes_starts_without_torch():
    check = "import sys, pipelines.restoration.pieces; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], timeout=60).returncode == 0
