"""What a notebook does with Fairing: in_cluster.py BUILDER NAMESPACE BASE SCRIPT.

Builds an image of a script with the builder append or cluster, and has it run by a Job, whose
name comes last.
"""
import sys

from kubeflow.fairing.preprocessors.base import BasePreProcessor

import fairing_append
import fairing_cluster
import fairing_job

name, namespace, base, script = sys.argv[1:]
options = {
    "registry": "registry.atoll.svc.cluster.local/" + namespace,
    "image_name": "check-" + name,
    "base_image": base,
    "preprocessor": BasePreProcessor(executable=script),
}
if name == "append":
    builder = fairing_append.AppendBuilder(**options)
else:
    builder = fairing_cluster.ClusterBuilder(context_source=fairing_cluster.ContextSource(), cleanup=True, **options)
builder.build()
print(fairing_job.Job(cleanup=False).deploy(builder.generate_pod_spec()))
