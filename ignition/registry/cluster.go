package registry

import (
	"k8s.io/client-go/kubernetes"
)

// NewCluster asks a Kubernetes API server whose an address or a token is. It needs the
// rights to list pods and to create tokenreviews, and no other:
//
//	- {apiGroups: [""], resources: [pods], verbs: [list]}
//	- {apiGroups: [authentication.k8s.io], resources: [tokenreviews], verbs: [create]}
func NewCluster(client kubernetes.Interface) Cluster { return nil }
