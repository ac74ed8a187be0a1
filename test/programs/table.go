package main

// The table: which program runs here under which of upstream's names. A row of the kind
// standIn has a program of this repository in its field own: the package's path by the
// place in the image. Such a program says in its log and its answers that it is one. It may
// be in a module of its own, if it is to link what the product does not.

// kind tells how near an image is to upstream's.
type kind int

const (
	real         kind = iota // upstream's program, the version that is wanted
	otherVersion             // upstream's program, another version
	otherBrand               // another program for the same work
	standIn                  // a program of this repository that stands in
)

func (k kind) String() string {
	return [...]string{"real", "real, other version", "real, other brand", "stand-in"}[k]
}

// program is one that is compiled in a module of its own.
type program struct {
	name   string            // of its file
	module string            // its folder in modules
	pkg    string            // its package
	tags   string            // for go build
	cgo    bool              // it needs a C compiler
	links  map[string]string // symbolic links of upstream's module to their targets
}

// image is a row: an image and the names that it is served under.
type image struct {
	wants      []string // what upstream's manifests name
	kind       kind
	full       bool              // of the whole set only
	note       string            // for the table
	programs   map[string]string // compiled programs by their places
	own        map[string]string // packages of this repository, of any module in it, by their places
	envoy      string            // place of Envoy
	upstream   map[string]string // more files of the first program's module by their places
	debian     []string          // packages
	python     string            // list of Python packages, for pip
	links      map[string]string // symbolic links
	folders    map[string]int64  // empty folders and their modes
	entrypoint []string
	cmd        []string
	user       string
	env        []string
	workDir    string
}

const (
	istio       = "istio.io/istio/"
	certManager = "github.com/cert-manager/cert-manager/cmd/"
	argo        = "github.com/argoproj/argo-workflows/v3/cmd/"
	katib       = "github.com/kubeflow/katib/cmd/"
	knative     = "knative.dev/serving/cmd/"
	kserve      = "github.com/kserve/kserve/cmd/"
)

// programs are in the order of the table's images.
var programs = []program{
	{name: "pilot-discovery", module: "istio", pkg: istio + "pilot/cmd/pilot-discovery", tags: "disable_pgv"},
	{name: "pilot-agent", module: "istio", pkg: istio + "pilot/cmd/pilot-agent", tags: "agent,disable_pgv"},
	{name: "install-cni", module: "istio", pkg: istio + "cni/cmd/install-cni", tags: "agent,disable_pgv"},
	{name: "istio-cni", module: "istio", pkg: istio + "cni/cmd/istio-cni", tags: "agent,disable_pgv"},
	{name: "cert-manager-controller", module: "cert-manager", pkg: certManager + "controller"},
	{name: "cert-manager-webhook", module: "cert-manager", pkg: certManager + "webhook"},
	{name: "cert-manager-cainjector", module: "cert-manager", pkg: certManager + "cainjector"},
	{name: "cert-manager-acmesolver", module: "cert-manager", pkg: certManager + "acmesolver"},
	{name: "dex", module: "dex", pkg: "github.com/dexidp/dex/cmd/dex", cgo: true, tags: "netgo,osusergo,sqlite_omit_load_extension"},
	{name: "oauth2-proxy", module: "oauth2-proxy", pkg: "github.com/oauth2-proxy/oauth2-proxy/v7"},
	{name: "kaniko", module: "kaniko", pkg: "github.com/GoogleContainerTools/kaniko/cmd/executor"},
	{name: "workflow-controller", module: "argo", pkg: argo + "workflow-controller"},
	{name: "argoexec", module: "argo", pkg: argo + "argoexec",
		links: map[string]string{"workflow/executor/osspecific/signal_linux.go": "signal_darwin.go"}},
	{name: "gofakes3", module: "gofakes3", pkg: "github.com/johannesboyne/gofakes3/cmd/gofakes3"},
	{name: "weed", module: "seaweedfs", pkg: "github.com/seaweedfs/seaweedfs/weed"},
	{name: "katib-controller", module: "katib", pkg: katib + "katib-controller/v1beta1"},
	{name: "katib-db-manager", module: "katib", pkg: katib + "db-manager/v1beta1"},
	{name: "katib-ui", module: "katib", pkg: katib + "ui/v1beta1"},
	{name: "goptuna", module: "katib", pkg: katib + "suggestion/goptuna/v1beta1"},
	{name: "file-metricscollector", module: "katib", pkg: katib + "metricscollector/v1beta1/file-metricscollector"},
	{name: "trainer-controller-manager", module: "trainer", pkg: "github.com/kubeflow/trainer/v2/cmd/trainer-controller-manager"},
	{name: "jobset", module: "jobset", pkg: "sigs.k8s.io/jobset"},
	{name: "knative-activator", module: "knative", pkg: knative + "activator"},
	{name: "knative-autoscaler", module: "knative", pkg: knative + "autoscaler"},
	{name: "knative-controller", module: "knative", pkg: knative + "controller"},
	{name: "knative-queue", module: "knative", pkg: knative + "queue"},
	{name: "knative-webhook", module: "knative", pkg: knative + "webhook"},
	{name: "kserve-controller", module: "kserve", pkg: kserve + "manager"},
	{name: "kserve-localmodel-controller", module: "kserve", pkg: kserve + "localmodel"},
	{name: "kserve-llmisvc-controller", module: "kserve", pkg: kserve + "llmisvc"},
	{name: "spark-operator", module: "spark-operator", pkg: "github.com/kubeflow/spark-operator/v2/cmd/operator"},
	{name: "kube-rbac-proxy", module: "kube-rbac-proxy", pkg: "github.com/brancz/kube-rbac-proxy/cmd/kube-rbac-proxy"},
}

// network are the packages of the programs that set up a pod's redirection.
var network = []string{"libc6", "iptables"}

// iptables are the names that the packages' maintainer scripts would make.
var iptables = map[string]string{
	"usr/sbin/iptables":          "xtables-nft-multi",
	"usr/sbin/iptables-save":     "xtables-nft-multi",
	"usr/sbin/iptables-restore":  "xtables-nft-multi",
	"usr/sbin/ip6tables":         "xtables-nft-multi",
	"usr/sbin/ip6tables-save":    "xtables-nft-multi",
	"usr/sbin/ip6tables-restore": "xtables-nft-multi",
}

// shell are the tools that SeaweedFS's probes call.
var shell = map[string]string{
	"usr/bin/sh": "busybox", "usr/bin/grep": "busybox", "usr/bin/seq": "busybox", "usr/bin/sleep": "busybox",
	"usr/bin/test": "busybox", "usr/bin/touch": "busybox", "usr/bin/wget": "busybox",
}

// pythons are Python's packages, and what packages from elsewhere link.
var pythons = []string{"libc6", "busybox-static", "libstdc++6", "python3.11"}

var pythonLinks = map[string]string{"usr/bin/sh": "busybox", "usr/bin/python": "python3.11", "usr/bin/python3": "python3.11"}

// images is the table.
func images() []image {
	return []image{
		{
			wants: []string{"gcr.io/istio-release/pilot:1.29.0"}, kind: otherVersion,
			programs:   map[string]string{"usr/local/bin/pilot-discovery": "pilot-discovery"},
			entrypoint: []string{"/usr/local/bin/pilot-discovery"}, user: "1337:1337",
		}, {
			wants: []string{"gcr.io/istio-release/proxyv2:1.29.0"}, kind: otherVersion,
			note:     "Envoy is upstream's, without Istio's own filters",
			programs: map[string]string{"usr/local/bin/pilot-agent": "pilot-agent"}, envoy: "usr/local/bin/envoy",
			upstream: map[string]string{"var/lib/istio/envoy/envoy_bootstrap_tmpl.json": "tools/packaging/common/envoy_bootstrap.json"},
			debian:   network, links: iptables,
			entrypoint: []string{"/usr/local/bin/pilot-agent"}, workDir: "/",
		}, {
			wants: []string{"gcr.io/istio-release/install-cni:1.29.0"}, kind: otherVersion,
			programs: map[string]string{"usr/local/bin/install-cni": "install-cni", "opt/cni/bin/istio-cni": "istio-cni"},
			debian:   network, links: iptables,
			entrypoint: []string{"/usr/local/bin/install-cni"}, workDir: "/opt/cni/bin",
		}, {
			wants: []string{"quay.io/jetstack/cert-manager-controller:v1.19.4"}, kind: otherVersion,
			programs:   map[string]string{"app/cmd/controller/controller": "cert-manager-controller"},
			entrypoint: []string{"/app/cmd/controller/controller"}, user: "1000",
		}, {
			wants: []string{"quay.io/jetstack/cert-manager-webhook:v1.19.4"}, kind: otherVersion,
			programs:   map[string]string{"app/cmd/webhook/webhook": "cert-manager-webhook"},
			entrypoint: []string{"/app/cmd/webhook/webhook"}, user: "1000",
		}, {
			wants: []string{"quay.io/jetstack/cert-manager-cainjector:v1.19.4"}, kind: otherVersion,
			programs:   map[string]string{"app/cmd/cainjector/cainjector": "cert-manager-cainjector"},
			entrypoint: []string{"/app/cmd/cainjector/cainjector"}, user: "1000",
		}, {
			wants: []string{"quay.io/jetstack/cert-manager-acmesolver:v1.19.4"}, kind: otherVersion,
			programs:   map[string]string{"app/cmd/acmesolver/acmesolver": "cert-manager-acmesolver"},
			entrypoint: []string{"/app/cmd/acmesolver/acmesolver"}, user: "1000",
		}, {
			wants: []string{"ghcr.io/dexidp/dex:v2.45.0"}, kind: otherVersion,
			note:       "a version from before 2.31",
			programs:   map[string]string{"usr/local/bin/dex": "dex"},
			folders:    map[string]int64{"var/dex": 0o777, "etc/dex": 0o755},
			entrypoint: []string{"/usr/local/bin/dex"}, cmd: []string{"serve", "/etc/dex/config.docker.yaml"}, user: "1001:1001",
		}, {
			wants: []string{"quay.io/oauth2-proxy/oauth2-proxy:v7.14.3"}, kind: otherVersion,
			programs:   map[string]string{"bin/oauth2-proxy": "oauth2-proxy"},
			entrypoint: []string{"/bin/oauth2-proxy"}, user: "65532",
		}, {
			wants: []string{"docker.io/kubeflowmanifestswg/oidc-authservice:e236439"}, kind: standIn,
			own:        map[string]string{"home/authservice/oidc-authservice": "atoll/test/kubeflow/authservice"},
			entrypoint: []string{"./oidc-authservice"}, workDir: "/home/authservice", user: "100:111",
		}, {
			wants: []string{"ghcr.io/osscontainertools/kaniko:v1.28.3", "gcr.io/kaniko-project/executor:v0.22.0"}, kind: otherVersion,
			note:       "the project that the wanted one is a fork of",
			programs:   map[string]string{"kaniko/executor": "kaniko"},
			folders:    map[string]int64{"kaniko": 0o777, "kaniko/.docker": 0o777, "kaniko/ssl/certs": 0o755, "workspace": 0o755},
			entrypoint: []string{"/kaniko/executor"}, workDir: "/workspace",
			env: []string{"HOME=/root", "USER=root", "PATH=/usr/local/bin:/kaniko", "SSL_CERT_DIR=/kaniko/ssl/certs", "DOCKER_CONFIG=/kaniko/.docker/"},
		}, {
			wants: []string{"quay.io/argoproj/workflow-controller:v3.7.3"}, kind: real,
			programs:   map[string]string{"bin/workflow-controller": "workflow-controller"},
			entrypoint: []string{"workflow-controller"}, user: "8737",
		}, {
			wants: []string{"quay.io/argoproj/argoexec:v3.7.3"}, kind: real,
			programs:   map[string]string{"bin/argoexec": "argoexec"},
			entrypoint: []string{"argoexec"},
		}, {
			wants: []string{"docker.io/library/mysql:8.0", "docker.io/library/mysql:8.4"}, kind: otherBrand,
			note:       "MariaDB",
			debian:     []string{"libc6", "bash", "mariadb-server-core", "mariadb-client-core"},
			own:        map[string]string{"usr/local/bin/mysql-entrypoint": "atoll/test/programs/mysql-entrypoint"},
			folders:    map[string]int64{"var/lib/mysql": 0o777, "run/mysqld": 0o777},
			entrypoint: []string{"/usr/local/bin/mysql-entrypoint"}, cmd: []string{"mysqld"},
		}, {
			wants: []string{"ghcr.io/atoll-lab/gofakes3:1.0"}, kind: otherBrand,
			note:       "in the place of SeaweedFS in the small set; takes any key",
			programs:   map[string]string{"bin/gofakes3": "gofakes3"},
			entrypoint: []string{"/bin/gofakes3"},
		}, {
			wants: []string{"ghcr.io/kubeflow/kfp-metadata-envoy:2.16.0"}, kind: otherVersion,
			note:   "Envoy alone, as upstream's",
			envoy:  "usr/local/bin/envoy",
			debian: []string{"libc6"}, user: "1000",
			entrypoint: []string{"/usr/local/bin/envoy", "-c"}, cmd: []string{"/etc/envoy.yaml"},
		}, {
			wants: []string{"docker.io/chrislusf/seaweedfs:4.00"}, kind: otherVersion, full: true,
			programs: map[string]string{"usr/bin/weed": "weed"},
			debian:   []string{"busybox-static"}, links: shell, folders: map[string]int64{"data": 0o777},
			entrypoint: []string{"/usr/bin/weed"}, user: "1000",
		},
		katibImage("katib-controller", "katib-controller"),
		katibImage("katib-db-manager", "katib-db-manager"),
		katibImage("katib-ui", "katib-ui"),
		katibImage("file-metrics-collector", "file-metricscollector"),
		katibImage("suggestion-goptuna", "goptuna"),
		{
			wants: []string{"ghcr.io/kubeflow/katib/suggestion-hyperopt:v0.19.0"}, kind: otherBrand, full: true,
			note:       "Goptuna, for the algorithm random alone",
			programs:   map[string]string{"app/goptuna": "goptuna"},
			entrypoint: []string{"./goptuna"}, workDir: "/app",
		},
		manager("ghcr.io/kubeflow/trainer/trainer-controller-manager:v2.1.0", "trainer-controller-manager"),
		manager("registry.k8s.io/jobset/jobset:v0.10.1", "jobset", "us-central1-docker.pkg.dev/k8s-staging-images/jobset/jobset:v0.10.1"),
		knativeImage("activator"),
		knativeImage("autoscaler"),
		knativeImage("controller"),
		knativeImage("queue"),
		knativeImage("webhook"),
		manager("docker.io/kserve/kserve-controller:v0.16.0", "kserve-controller"),
		manager("docker.io/kserve/kserve-localmodel-controller:v0.16.0", "kserve-localmodel-controller"),
		manager("docker.io/kserve/llmisvc-controller:v0.16.0", "kserve-llmisvc-controller"),
		{
			wants: []string{"ghcr.io/kubeflow/spark-operator/controller:2.5.0"}, kind: real, full: true,
			note:       "its spark-submit is a stand-in",
			programs:   map[string]string{"usr/bin/spark-operator": "spark-operator"},
			own:        map[string]string{"opt/spark/bin/spark-submit": "atoll/test/programs/spark"},
			env:        []string{"SPARK_HOME=/opt/spark"},
			folders:    map[string]int64{"etc/k8s-webhook-server/serving-certs": 0o777, "home/spark": 0o777},
			entrypoint: []string{"/usr/bin/spark-operator"}, user: "185:185",
		}, {
			wants: []string{"docker.io/library/spark:3.5.2"}, kind: standIn, full: true,
			note:       "its drivers say that they are stand-ins, and end",
			own:        map[string]string{"opt/entrypoint.sh": "atoll/test/programs/spark"},
			entrypoint: []string{"/opt/entrypoint.sh"}, user: "185:185",
		}, {
			wants: []string{"quay.io/brancz/kube-rbac-proxy:v0.18.0", "quay.io/brancz/kube-rbac-proxy:v0.13.1", "quay.io/brancz/kube-rbac-proxy:v0.8.0"},
			kind:  real, full: true, note: "v0.18.0 for all three",
			programs:   map[string]string{"usr/local/bin/kube-rbac-proxy": "kube-rbac-proxy"},
			entrypoint: []string{"/usr/local/bin/kube-rbac-proxy"}, user: "65532:65532",
		}, {
			wants: []string{"docker.io/library/python:3.11"}, kind: otherBrand, full: true,
			note:   "Debian's, without pip",
			debian: pythons, links: pythonLinks,
			cmd: []string{"python3"},
		}, {
			wants: []string{"ghcr.io/atoll-lab/fairing:1.0"}, kind: real, full: true,
			note:   "Kubeflow Fairing 1.0.2; upstream has no image of it",
			debian: pythons, links: pythonLinks, python: "test/kubeflow/fairing/requirements.txt",
			folders: map[string]int64{"home/jovyan": 0o777}, env: []string{"HOME=/home/jovyan"},
			workDir: "/home/jovyan", user: "1000:100", cmd: []string{"python3"},
		},
	}
}

// katibImage is one of Katib's: a program in its working folder.
func katibImage(repository, program string) image {
	return image{
		wants: []string{"ghcr.io/kubeflow/katib/" + repository + ":v0.19.0"}, kind: real, full: true,
		programs:   map[string]string{"app/" + program: program},
		entrypoint: []string{"./" + program}, workDir: "/app",
	}
}

// knativeImage is one of Knative's, which manifests pin by a digest.
func knativeImage(name string) image {
	return image{
		wants: []string{"gcr.io/knative-releases/knative.dev/serving/cmd/" + name}, kind: real, full: true,
		note:       "wanted by a digest, of 1.21.1",
		programs:   map[string]string{"ko-app/" + name: "knative-" + name},
		entrypoint: []string{"/ko-app/" + name}, user: "65532:65532", env: []string{"KO_DATA_PATH=/var/run/ko"},
	}
}

// manager is a controller as Kubebuilder's template makes its image.
func manager(wants, program string, more ...string) image {
	return image{
		wants: append([]string{wants}, more...), kind: real, full: true,
		programs:   map[string]string{"manager": program},
		entrypoint: []string{"/manager"}, user: "65532:65532",
	}
}
