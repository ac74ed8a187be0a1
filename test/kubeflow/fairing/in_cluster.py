"""What a notebook does with Fairing: in_cluster.py BUILDER NAMESPACE BASE.

Builds an image of hello.py with the builder append or cluster, and has it run by a Job, whose
name comes last.
"""
import sys

from kubeflow.fairing.deployers.job.job import Job
from kubeflow.fairing.preprocessors.base import BasePreProcessor

import fairing_append
import fairing_cluster

name, namespace, base = sys.argv[1:]
options = {
    "registry": "registry.atoll.svc.cluster.local/" + namespace,
    "image_name": "check-" + name,
    "base_image": base,
    "preprocessor": BasePreProcessor(executable="hello.py"),
}
if name == "append":
    builder = fairing_append.AppendBuilder(**options)
else:
    builder = fairing_cluster.ClusterBuilder(context_source=fairing_cluster.ContextSource(), cleanup=True, **options)
builder.build()
print(Job(cleanup=False).deploy(builder.generate_pod_spec()))
