"""The page /metrics of several workers."""

import os
import subprocess
import sys
from pathlib import Path


def test_metrics_of_libraries_in_the_same_folder_are_left_out(tmp_path: Path) -> None:
    """Feast counts its own reads into the folder of the workers' metrics."""
    code = """
import prometheus_client
from serving.http import prometheus
prometheus_client.Counter("feast_reads", "Reads.").inc()
prometheus.count_request("/v1/churn", "POST", 200, 0.01)
print(prometheus.render_metrics().body.decode())
"""
    environment = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    page = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert 'regulars_requests_total{method="POST",route="/v1/churn",status="200"} 1.0' in page.stdout
    assert "feast" not in page.stdout
