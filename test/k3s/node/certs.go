package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"atoll/test/k3s/node/internal/config"
	"atoll/test/k3s/node/internal/files"
	"atoll/test/k3s/node/internal/pki"
)

const (
	tlsDir   = config.DataDir + "/server/tls"
	credDir  = config.DataDir + "/server/cred"
	agentDir = config.DataDir + "/agent"
)

// makeCerts makes and renews every CA and certificate, k3s's names for them, and the kubeconfigs that use them.
func makeCerts(c *config.Config) error {
	now := time.Now()
	if err := errors.Join(os.MkdirAll(tlsDir, 0o700), os.MkdirAll(credDir, 0o700), os.MkdirAll(agentDir, 0o700)); err != nil {
		return err
	}
	service, err := c.ServiceIP(1)
	if err != nil {
		return err
	}
	hosts := append([]string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + c.ClusterDomain,
		"localhost", c.NodeName, "127.0.0.1", service, c.NodeIP}, c.TLSSAN...)
	if c.AdvertiseAddress != c.NodeIP {
		hosts = append(hosts, c.AdvertiseAddress)
	}
	for _, ca := range []struct {
		file, name string
		leaves     []pki.Leaf
	}{
		{"client-ca", "k3s-client-ca", []pki.Leaf{
			{File: "client-admin", Name: "system:admin", Groups: []string{"system:masters"}},
			{File: "client-kube-apiserver", Name: "system:kube-apiserver", Groups: []string{"system:masters"}},
			{File: "client-controller", Name: "system:kube-controller-manager"},
			{File: "client-scheduler", Name: "system:kube-scheduler"},
			{File: "client-kube-proxy", Name: "system:kube-proxy"},
			{File: "client-kubelet", Name: "system:node:" + c.NodeName, Groups: []string{"system:nodes"}},
		}},
		{"server-ca", "k3s-server-ca", []pki.Leaf{
			{File: "serving-kube-apiserver", Name: "kube-apiserver", Hosts: hosts},
			{File: "serving-kubelet", Name: c.NodeName, Hosts: []string{c.NodeName, "127.0.0.1", c.NodeIP}},
		}},
		{"request-header-ca", "k3s-request-header-ca", []pki.Leaf{{File: "client-auth-proxy", Name: "system:auth-proxy"}}},
	} {
		signer, err := pki.LoadCA(filepath.Join(tlsDir, ca.file), ca.name, now)
		if err != nil {
			return err
		}
		for _, l := range ca.leaves {
			l.File = filepath.Join(tlsDir, l.File)
			if err := signer.Ensure(l, now); err != nil {
				return err
			}
		}
	}
	if err := pki.EnsureKey(tlsDir + "/service.key"); err != nil {
		return err
	}
	return writeKubeconfigs(c)
}

func writeKubeconfigs(c *config.Config) error {
	for name, path := range map[string]string{
		"client-controller": credDir + "/controller.kubeconfig",
		"client-scheduler":  credDir + "/scheduler.kubeconfig",
		"client-kube-proxy": agentDir + "/kubeproxy.kubeconfig",
		"client-kubelet":    agentDir + "/kubelet.kubeconfig",
	} {
		if err := writeKubeconfig(path, name, 0o600); err != nil {
			return err
		}
	}
	mode, err := c.KubeconfigMode()
	if err != nil {
		return err
	}
	return writeKubeconfig(c.WriteKubeconfig, "client-admin", mode)
}

// writeKubeconfig writes a kubeconfig that holds the certificates themselves.
func writeKubeconfig(path, cert string, mode os.FileMode) error {
	read := func(name string) []byte {
		data, rerr := os.ReadFile(filepath.Join(tlsDir, name))
		if rerr != nil {
			return nil // clientcmd.Write then leaves it out, and its reader says so
		}
		return data
	}
	k := clientcmdapi.NewConfig()
	k.Clusters["default"] = &clientcmdapi.Cluster{Server: "https://127.0.0.1:6443", CertificateAuthorityData: read("server-ca.crt")}
	k.AuthInfos["default"] = &clientcmdapi.AuthInfo{ClientCertificateData: read(cert + ".crt"), ClientKeyData: read(cert + ".key")}
	k.Contexts["default"] = &clientcmdapi.Context{Cluster: "default", AuthInfo: "default"}
	k.CurrentContext = "default"
	data, err := clientcmd.Write(*k)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return files.WriteWhole(path, data, mode)
}
