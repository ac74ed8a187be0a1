package bundle

import "time"

// States of a [Status] and of its phases.
const (
	StatePending = "pending"
	StateRunning = "running"
	StateReady   = "ready"
	StateFailed  = "failed"
)

// Status is how far the first boot is. The node writes it as one line of JSON to
// a file, to an HTTP endpoint and to the virtio port [StatusPort].
type Status struct {
	Appliance string        `json:"appliance"`
	State     string        `json:"state"`
	Phases    []PhaseStatus `json:"phases"`
	// Error is why the state is failed: what, where and what to do next.
	Error string `json:"error,omitempty"`
	// Log is the tail of the log that belongs to the error.
	Log []string `json:"log,omitempty"`
	// Updated is when the status last changed, by the node's clock.
	Updated time.Time `json:"updated"`
}

// PhaseStatus is one step of the first boot: prepare, registry, k3s, registry-rw, then the plan's phases.
type PhaseStatus struct {
	Name  string `json:"name"`
	State string `json:"state"`
	// Message is what the phase waits for, in words.
	Message string `json:"message,omitempty"`
	// Seconds the phase took, by the node's monotonic clock; 0 while it runs.
	Seconds float64 `json:"seconds,omitempty"`
}

// StatusPort is the name of the virtio-serial port that a machine watching the
// node listens on.
const StatusPort = "org.atoll.status"

// BootMAC is the address of the network card that a machine has which "atoll boot" makes. On
// that card the node asks for an address, whatever its definition says of the network at its
// site: the machine's network knows no other. It is a locally administered one (IEEE 802).
const BootMAC = "02:61:74:6f:6c:6c"
