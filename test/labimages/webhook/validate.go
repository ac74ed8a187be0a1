package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// maxReview bounds an AdmissionReview, in bytes; the API server's objects end at 3 MiB.
const maxReview = 8 << 20

// review is admission.k8s.io/v1 AdmissionReview, as far as it is used here.
type review struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Request    *request  `json:"request,omitempty"`
	Response   *response `json:"response,omitempty"`
}

type request struct {
	UID    string                `json:"uid"`
	Kind   struct{ Kind string } `json:"kind"`
	Object json.RawMessage       `json:"object"`
}

type response struct {
	UID     string  `json:"uid"`
	Allowed bool    `json:"allowed"`
	Status  *status `json:"status,omitempty"`
}

type status struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// validate answers one AdmissionReview.
func validate(w http.ResponseWriter, r *http.Request) {
	var in review
	if err := json.NewDecoder(io.LimitReader(r.Body, maxReview)).Decode(&in); err != nil || in.Request == nil {
		http.Error(w, "want an AdmissionReview with a request", http.StatusBadRequest)
		return
	}
	out := review{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview", Response: &response{UID: in.Request.UID, Allowed: true}}
	if msg := refuse(in.Request); msg != "" {
		out.Response.Allowed = false
		out.Response.Status = &status{Code: http.StatusForbidden, Message: msg}
	}
	w.Header().Set("Content-Type", "application/json")
	// An error is the API server hanging up: there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(out)
}

// refuse says what is wrong with an object; empty if it may pass.
func refuse(r *request) string {
	if r.Kind.Kind != "Atoll" {
		return ""
	}
	var o struct {
		Spec struct{ Size *float64 }
	}
	if err := json.Unmarshal(r.Object, &o); err != nil {
		return fmt.Sprintf("object cannot be read: %v", err)
	}
	if o.Spec.Size == nil || *o.Spec.Size <= 0 {
		return "spec.size must be greater than 0: an atoll without land is a reef"
	}
	return ""
}
