"""What a notebook does with Fairing: in_cluster.py HOW NAMESPACE BASE.

Builds an image of hello.py and has it run by a Job, whose name comes last. HOW is append,
cluster, or fairing for Fairing's own cluster builder.
"""
import os
import sys

from kubeflow.fairing.builders.cluster import cluster, minio_context
from kubeflow.fairing.deployers.job.job import Job
from kubeflow.fairing.preprocessors.base import BasePreProcessor

import fairing_append
import fairing_cluster

how, namespace, base = sys.argv[1:]
options = {
    "registry": "registry.atoll.svc.cluster.local/" + namespace,
    "image_name": "check-" + how,
    "base_image": base,
    "preprocessor": BasePreProcessor(executable="hello.py"),
}
if how == "append":
    builder = fairing_append.AppendBuilder(**options)
elif how == "cluster":
    builder = fairing_cluster.ClusterBuilder(context_source=fairing_cluster.ContextSource(), cleanup=True, **options)
else:
    builder = cluster.ClusterBuilder(context_source=minio_context.MinioContextSource(
        "http://seaweedfs.kubeflow:9000", os.environ["KEY"], os.environ["SECRET"], "us-east-1"), cleanup=True, **options)
builder.build()
print(Job(cleanup=False).deploy(builder.generate_pod_spec()))
