package registry

import (
	"encoding/json"
	"net/http"
)

// refusal is an error as the OCI distribution API writes it.
type refusal struct {
	status  int
	code    string
	message string
	// login tells the client that it may try again with a password.
	login bool
}

func (e *refusal) Error() string { return e.message }

// challenge is what a login looks like; clients need to know before they send a password.
const challenge = `Basic realm="a service account's token as password, with any user name"`

func (e *refusal) write(w http.ResponseWriter) {
	if e.login {
		w.Header().Set("WWW-Authenticate", challenge)
	}
	w.Header().Del("Content-Length")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.status)
	w.Write(e.body()) // fails if the client is gone
}

func (e *refusal) body() []byte {
	type entry struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	body, _ := json.Marshal(map[string][]entry{"errors": {{e.code, e.message}}}) // strings cannot fail
	return body
}

func badName(err error) *refusal {
	return &refusal{status: http.StatusBadRequest, code: "NAME_INVALID", message: err.Error()}
}

func denied(message string) *refusal {
	return &refusal{status: http.StatusForbidden, code: "DENIED", message: message}
}

func unavailable(message string) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, code: "UNKNOWN", message: message}
}
