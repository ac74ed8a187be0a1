// Package manifest turns a stack into what a node installs, and finds the images
// that it needs. All of it is pure: files come from a stack, its sources and the user's
// overlays, nothing is fetched, and the same input gives the same output.
//
// [Plan] goes this way: every component is checked (check.go and plugin.go, which point the
// URLs of sources at them) and rendered (kustomize.go; cache.go keeps the result), the user's
// overlays run over all (overlay.go), images are found (images.go, rules.go), what the stack
// and the definition say of them is applied (policy.go, prune.go), and the objects are put
// into phases.
//
// Input is not trusted. All of it is within the bounds of package bounds before it is
// decoded. Kustomize reads what was checked, encoded anew, and nothing else (fs.go): a
// path that was not seen is not there, and none that it is given can be taken for remote.
// Should the check miss something all the same, kustomize finds no git and no network
// (guard.go). Plugins are those built in; Helm, programs and containers are refused.
package manifest
