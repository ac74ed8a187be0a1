package main

import "strings"

// flags writes key, value pairs as command line flags, then what the user adds.
func flags(extra []string, pairs ...string) []string {
	var out []string
	for i := 0; i+1 < len(pairs); i += 2 {
		out = append(out, "--"+pairs[i]+"="+pairs[i+1])
	}
	for _, e := range extra {
		out = append(out, "--"+strings.TrimPrefix(e, "--"))
	}
	return out
}

func (s *server) apiserverArgs() []string {
	return flags(s.cfg.APIServerArgs,
		"advertise-address", s.cfg.AdvertiseAddress,
		"secure-port", "6443",
		"allow-privileged", "true",
		"anonymous-auth", "false",
		"authorization-mode", "Node,RBAC",
		"enable-admission-plugins", "NodeRestriction",
		"client-ca-file", tlsDir+"/client-ca.crt",
		"tls-cert-file", tlsDir+"/serving-kube-apiserver.crt",
		"tls-private-key-file", tlsDir+"/serving-kube-apiserver.key",
		"kubelet-client-certificate", tlsDir+"/client-kube-apiserver.crt",
		"kubelet-client-key", tlsDir+"/client-kube-apiserver.key",
		"kubelet-certificate-authority", tlsDir+"/server-ca.crt",
		"kubelet-preferred-address-types", "InternalIP,Hostname",
		"etcd-servers", "unix://"+etcdSocket,
		"service-cluster-ip-range", s.cfg.ServiceCIDR,
		"service-account-issuer", "https://kubernetes.default.svc."+s.cfg.ClusterDomain,
		"service-account-key-file", tlsDir+"/service.key",
		"service-account-signing-key-file", tlsDir+"/service.key",
		"requestheader-client-ca-file", tlsDir+"/request-header-ca.crt",
		"requestheader-allowed-names", "system:auth-proxy",
		"requestheader-extra-headers-prefix", "X-Remote-Extra-",
		"requestheader-group-headers", "X-Remote-Group",
		"requestheader-username-headers", "X-Remote-User",
		"proxy-client-cert-file", tlsDir+"/client-auth-proxy.crt",
		"proxy-client-key-file", tlsDir+"/client-auth-proxy.key",
		"enable-aggregator-routing", "true",
		"profiling", "false",
	)
}

func (s *server) controllerArgs() []string {
	cred := credDir + "/controller.kubeconfig"
	return flags(s.cfg.ControllerManagerArgs,
		"kubeconfig", cred,
		"authentication-kubeconfig", cred,
		"authorization-kubeconfig", cred,
		"bind-address", "127.0.0.1",
		"cluster-cidr", s.cfg.ClusterCIDR,
		"leader-elect", "false", // there is one node
		"use-service-account-credentials", "true",
		"service-account-private-key-file", tlsDir+"/service.key",
		"root-ca-file", tlsDir+"/server-ca.crt",
		"cluster-signing-kubelet-client-cert-file", tlsDir+"/client-ca.crt",
		"cluster-signing-kubelet-client-key-file", tlsDir+"/client-ca.key",
		"cluster-signing-kube-apiserver-client-cert-file", tlsDir+"/client-ca.crt",
		"cluster-signing-kube-apiserver-client-key-file", tlsDir+"/client-ca.key",
		"cluster-signing-kubelet-serving-cert-file", tlsDir+"/server-ca.crt",
		"cluster-signing-kubelet-serving-key-file", tlsDir+"/server-ca.key",
		"cluster-signing-legacy-unknown-cert-file", tlsDir+"/server-ca.crt",
		"cluster-signing-legacy-unknown-key-file", tlsDir+"/server-ca.key",
		"profiling", "false",
	)
}

func (s *server) schedulerArgs() []string {
	cred := credDir + "/scheduler.kubeconfig"
	return flags(s.cfg.SchedulerArgs,
		"kubeconfig", cred,
		"authentication-kubeconfig", cred,
		"authorization-kubeconfig", cred,
		"bind-address", "127.0.0.1",
		"leader-elect", "false",
		"profiling", "false",
	)
}

func (s *server) kubeletArgs() []string {
	args := flags(nil,
		"config", agentDir+"/etc/kubelet.yaml",
		"kubeconfig", agentDir+"/kubelet.kubeconfig",
		"hostname-override", s.cfg.NodeName,
		"node-ip", s.cfg.NodeIP,
		"root-dir", "/var/lib/kubelet",
	)
	if len(s.cfg.NodeLabels) > 0 {
		args = append(args, "--node-labels="+strings.Join(s.cfg.NodeLabels, ","))
	}
	if len(s.cfg.NodeTaints) > 0 {
		args = append(args, "--register-with-taints="+strings.Join(s.cfg.NodeTaints, ","))
	}
	return append(args, flags(s.cfg.KubeletArgs)...)
}

func (s *server) proxyArgs() []string {
	return flags(s.cfg.ProxyArgs,
		"kubeconfig", agentDir+"/kubeproxy.kubeconfig",
		"hostname-override", s.cfg.NodeName,
		"cluster-cidr", s.cfg.ClusterCIDR,
		"proxy-mode", "iptables",
		"healthz-bind-address", "127.0.0.1:10256",
		"conntrack-max-per-core", "0",
		"conntrack-tcp-timeout-established", "0s",
		"conntrack-tcp-timeout-close-wait", "0s",
	)
}
