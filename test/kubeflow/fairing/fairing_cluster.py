"""Fairing's cluster builder, for the object store of Kubeflow Pipelines.

Fairing 1.0.2 puts a build's context into a bucket that it makes itself, which the key of a user
of Kubeflow does not allow; it writes that key into the Job for everybody to read; and it goes
on as if nothing had been when the build has failed.
"""
import base64

import httplib2
from containerregistry.client import docker_creds, docker_name
from containerregistry.client.v2_2 import docker_http, docker_image
from containerregistry.transport import transport_pool
from kubernetes import client
from kubeflow.fairing import utils
from kubeflow.fairing.builders.cluster import cluster, minio_context
from kubeflow.fairing.cloud import k8s
from kubeflow.fairing.kubernetes.manager import KubeManager

BUCKET = "mlpipeline"
SECRET = "mlpipeline-minio-artifact"  # Kubeflow puts it into each user's namespace
KEYS = {"AWS_ACCESS_KEY_ID": "accesskey", "AWS_SECRET_ACCESS_KEY": "secretkey"}


class ContextSource(minio_context.MinioContextSource):
    """Contexts lie in the part of the bucket that the namespace's key opens."""

    def __init__(self, endpoint_url="http://seaweedfs.kubeflow:9000", region_name="us-east-1"):
        KubeManager()  # it reads how to reach the cluster
        self.namespace = utils.get_default_target_namespace()
        data = client.CoreV1Api().read_namespaced_secret(SECRET, self.namespace).data
        key, secret = (base64.b64decode(data[name]).decode() for name in KEYS.values())
        super().__init__(endpoint_url, key, secret, region_name)

    def upload_context(self, context_filename):
        name = "private/{}/fairing-builds/{}".format(self.namespace, utils.crc(context_filename))
        uploader = k8s.MinioUploader(self.endpoint_url, self.minio_secret, self.minio_secret_key, self.region_name)
        uploader.client.upload_file(context_filename, BUCKET, name)
        return "s3://{}/{}".format(BUCKET, name)

    def generate_pod_spec(self, image_name, push):
        spec = super().generate_pod_spec(image_name, push)
        for variable in spec.containers[0].env:
            if variable.name in KEYS:
                variable.value = None
                variable.value_from = client.V1EnvVarSource(secret_key_ref=client.V1SecretKeySelector(
                    name=SECRET, key=KEYS[variable.name]))
        spec.volumes[0].config_map.optional = True  # docker-config: the registry wants no login
        return spec


class ClusterBuilder(cluster.ClusterBuilder):
    def build(self):
        super().build()
        tag = docker_name.Tag(self.image_tag, strict=False)
        creds, transport = docker_creds.DefaultKeychain.Resolve(tag), transport_pool.Http(httplib2.Http)
        with docker_image.FromRegistry(tag, creds, transport, docker_http.SUPPORTED_MANIFEST_MIMES) as image:
            if self.push and not image.exists():
                raise RuntimeError("the build failed: {} is not in the registry".format(tag))
