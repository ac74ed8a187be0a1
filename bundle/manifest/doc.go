// Package manifest turns a stack into what a node installs, and finds the images
// that it needs. All of it is pure: files come from an [io/fs.FS], nothing is
// fetched, and the same input gives the same output.
//
// Input is not trusted. Files, documents and nesting are bounded, and a YAML file
// whose aliases would grow beyond these bounds is refused before it is expanded.
package manifest
