"""Fairing's append builder, for base images of today and with manifests that containerd takes.

Fairing 1.0.2 reads no image in OCI's format and none of several platforms. It states the base
image's size for the configuration of the image that it makes, and gives the layer that it adds
the media type of a manifest. Docker's daemon looks at neither; containerd does.
"""
import json

from containerregistry.client import docker_creds
from containerregistry.client.v2_2 import append as append_layer
from containerregistry.client.v2_2 import docker_http, docker_image, docker_image_list
from containerregistry.transform.v2_2 import metadata
from kubeflow.fairing.builders.append import append


class AppendBuilder(append.AppendBuilder):
    def _build(self, transport, src):
        self.context_file, self.context_hash = self.preprocessor.context_tar_gz()
        self.image_tag = self.full_image_name(self.context_hash)
        with open(self.context_file, "rb") as f:
            layer = f.read()
        return _Mended(append_layer.Layer(_base(transport, src), layer, overrides=metadata.Overrides(
            cmd=self.preprocessor.get_command(), user="0", env={"FAIRING_RUNTIME": "1"})))


def _base(transport, src):
    """The base image; of one for several platforms that for linux/amd64."""
    creds = docker_creds.DefaultKeychain.Resolve(src)
    every = docker_http.MANIFEST_LIST_MIMES + docker_http.SUPPORTED_MANIFEST_MIMES
    with docker_image_list.FromRegistry(src, creds, transport, every) as several:
        if several.exists():
            image = several.resolve()
        else:
            image = docker_image.FromRegistry(src, creds, transport, docker_http.SUPPORTED_MANIFEST_MIMES)
    return image.__enter__()


class _Mended(docker_image.Delegate):
    def manifest(self):
        m = json.loads(self._image.manifest())
        m["config"]["size"] = len(self._image.config_file().encode())
        oci = self._image.media_type() == docker_http.OCI_MANIFEST_MIME
        m["layers"][-1]["mediaType"] = docker_http.OCI_GZIP_LAYER_MIME if oci else docker_http.LAYER_MIME
        return json.dumps(m, sort_keys=True)

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        pass
