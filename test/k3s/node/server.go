package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"atoll/test/k3s/node/internal/config"
	"atoll/test/k3s/node/internal/deploy"
	"atoll/test/k3s/node/internal/images"
	"atoll/test/k3s/node/internal/payload"
)

// startTimeout bounds the start of any one component, on a machine that is emulated.
const startTimeout = 10 * time.Minute

// server is the running "k3s server".
type server struct {
	cfg  *config.Config
	exe  string
	bin  string // where the helper programs are
	log  *slog.Logger
	dead chan error
}

// runServer starts everything in order and stays until a component ends or a signal comes. A component that ends
// ends k3s: systemd starts it again, as a whole.
func runServer(args []string) error {
	cfg, err := config.Load("/etc/rancher/k3s/config.yaml", args)
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	bin, err := payload.Unpack(exe, filepath.Join(config.DataDir, "data"))
	if err != nil {
		return err
	}
	if err := os.Setenv("PATH", bin+":"+os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Children are killed with the thread that started them: keep it.
	runtime.LockOSThread()
	s := &server{cfg: cfg, exe: exe, bin: bin, log: slog.New(slog.NewTextHandler(os.Stderr, nil)), dead: make(chan error, 16)}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	if err := s.start(ctx, cancel); err != nil {
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			return cause
		}
		return err
	}
	<-ctx.Done()
	if cause := context.Cause(ctx); !errors.Is(cause, context.Canceled) {
		return cause
	}
	return nil
}

func (s *server) start(ctx context.Context, cancel context.CancelCauseFunc) error {
	if err := errors.Join(makeCerts(s.cfg), s.writeAgentFiles(), s.writeAddons()); err != nil {
		return err
	}
	go func() { cancel(<-s.dead) }()
	data := config.DataDir
	if err := os.MkdirAll(data+"/server/db", 0o700); err != nil {
		return err
	}
	if err := s.child("etcd", data+"/server/db/etcd", etcdSocket); err != nil {
		return err
	}
	if err := s.child("containerd", "--config", agentDir+"/etc/containerd/config.toml", "--log-level", "warn"); err != nil {
		return err
	}
	if err := s.waitEtcd(ctx); err != nil {
		return err
	}
	if err := s.child("kube-apiserver", s.apiserverArgs()...); err != nil {
		return err
	}
	if err := s.importImages(ctx); err != nil {
		return err
	}
	restConfig, set, err := s.waitAPI(ctx)
	if err != nil {
		return err
	}
	for name, args := range map[string][]string{
		"kube-controller-manager": s.controllerArgs(),
		"kube-scheduler":          s.schedulerArgs(),
		"kubelet":                 s.kubeletArgs(),
		"kube-proxy":              s.proxyArgs(),
	} {
		if err := s.child(name, args...); err != nil {
			return err
		}
	}
	if err := s.waitNode(ctx, set); err != nil {
		return err
	}
	ctl, err := deploy.New(restConfig, data+"/server/manifests", s.log)
	if err != nil {
		return err
	}
	go ctl.Run(ctx)
	s.log.Info("k3s is up", "node", s.cfg.NodeName)
	return notifyReady()
}

// child starts a component: this program under another name. It dies with us.
func (s *server) child(name string, args ...string) error {
	cmd := exec.Command(s.exe, append([]string{name}, args...)...)
	cmd.Args[0] = "k3s"
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// Memory is cheap here and processor time, mostly emulated, is not: collect garbage
	// a third as often.
	cmd.Env = append(os.Environ(), "GOGC=300")
	if name == "containerd" {
		dir := agentDir + "/containerd"
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return err
		}
		f, err := os.OpenFile(dir+"/containerd.log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return err
		}
		defer f.Close()
		cmd.Stdout, cmd.Stderr = f, f
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting %s: %w", name, err)
	}
	s.log.Info("started", "component", name, "pid", cmd.Process.Pid)
	go func() {
		err := cmd.Wait()
		s.dead <- fmt.Errorf("%s ended: %v", name, err)
	}()
	return nil
}

// poll tries until it works, ctx ends or startTimeout is over.
func poll(ctx context.Context, what string, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var err error
	for {
		if err = try(ctx); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w (last: %v)", what, ctx.Err(), err)
		case <-time.After(time.Second):
		}
	}
}

func (s *server) waitEtcd(ctx context.Context) error {
	return poll(ctx, "etcd", func(context.Context) error {
		conn, err := net.DialTimeout("unix", etcdSocket, time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// importImages loads agent/images before kubelet starts, like k3s.
func (s *server) importImages(ctx context.Context) error {
	return poll(ctx, "containerd", func(ctx context.Context) error {
		client, err := containerd.New(containerdSocket, containerd.WithDefaultNamespace("k8s.io"))
		if err != nil {
			return err
		}
		defer client.Close()
		if _, err := client.Version(ctx); err != nil {
			return err
		}
		return images.Import(ctx, client, agentDir+"/images", s.log)
	})
}

func (s *server) waitAPI(ctx context.Context) (*rest.Config, kubernetes.Interface, error) {
	cfg, err := clientcmd.BuildConfigFromFlags("", s.cfg.WriteKubeconfig)
	if err != nil {
		return nil, nil, err
	}
	set, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		return nil, nil, err
	}
	return cfg, set, poll(ctx, "the API server", func(ctx context.Context) error {
		return set.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

func (s *server) waitNode(ctx context.Context, set kubernetes.Interface) error {
	return poll(ctx, "the node", func(ctx context.Context) error {
		_, err := set.CoreV1().Nodes().Get(ctx, s.cfg.NodeName, metav1.GetOptions{})
		return err
	})
}

// notifyReady tells systemd (sd_notify(3)).
func notifyReady() error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return err
	}
	_, err = conn.Write([]byte("READY=1"))
	return errors.Join(err, conn.Close())
}
