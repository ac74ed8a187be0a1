module atoll/test/kubeflow/authservice

go 1.26.0

require (
	github.com/coreos/go-oidc/v3 v3.15.0
	go.etcd.io/bbolt v1.4.3
	golang.org/x/oauth2 v0.36.0
)

require (
	github.com/go-jose/go-jose/v4 v4.0.5 // indirect
	golang.org/x/crypto v0.36.0 // indirect
	golang.org/x/sys v0.31.0 // indirect
)
