// Package manifest turns a stack into what a node installs, and finds the images
// that it needs. All of it is pure: files come from a stack, its sources and the user's
// overlays, nothing is fetched, and the same input gives the same output.
//
// [Plan] goes this way: every component is rendered (render.go, with the URLs of sources
// pointed at them by local.go; cache.go keeps the result), the user's overlays run over all
// (overlay.go), images are found (images.go, rules.go), what the stack and the definition
// say of them is applied (policy.go, prune.go), and the objects are put into phases.
//
// Input is not trusted. Files, documents and nesting are bounded, and a YAML file
// whose aliases would grow beyond these bounds is refused before it is expanded.
package manifest
