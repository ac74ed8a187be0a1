package bundle

import "time"

// Plan is what the node installs: the phases of a stack, in order.
type Plan struct {
	Stack  string  `json:"stack"`
	Phases []Phase `json:"phases"`
}

// Phase is a set of objects that are applied together and then waited for.
type Phase struct {
	// Name is told while the phase runs.
	Name string `json:"name"`
	// Manifest is the phase's objects, as one stream of YAML documents.
	Manifest string `json:"manifest"`
	// Timeout bounds the phase, apply and wait together.
	Timeout time.Duration `json:"timeout"`
}
