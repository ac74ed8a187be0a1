package qemu

import (
	"bufio"
	"encoding/json"
	"log/slog"
	"net"
	"sync"
)

// monitor speaks QMP, QEMU's control protocol: JSON lines. Its events tell what QEMU
// itself does not survive, or only by stopping the guest.
type monitor struct {
	conn   net.Conn
	log    *slog.Logger
	events chan event

	mu sync.Mutex // guards writing
}

// event is what QEMU tells unasked.
type event struct {
	Name string `json:"event"`
	Data struct {
		NoSpace bool   `json:"nospace"`
		Reason  string `json:"reason"`
		Action  string `json:"action"`
	} `json:"data"`
}

func newMonitor(conn net.Conn, log *slog.Logger) *monitor {
	return &monitor{conn: conn, log: log, events: make(chan event, 16)}
}

// run reads events until the connection ends. Events that nobody takes are dropped.
func (m *monitor) run() {
	if err := m.execute("qmp_capabilities"); err != nil {
		return // QEMU has ended, and its end says why
	}
	lines := bufio.NewScanner(m.conn)
	for lines.Scan() {
		m.log.Debug("QMP", "line", lines.Text())
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Name == "" {
			continue
		}
		select {
		case m.events <- e:
		default:
		}
	}
}

// execute sends a command and does not wait for its answer.
func (m *monitor) execute(command string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return json.NewEncoder(m.conn).Encode(map[string]string{"execute": command})
}

func (m *monitor) close() error { return m.conn.Close() }
