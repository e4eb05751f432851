// Package manifests checks what lies in deploy against the types of those who read
// it: Kubernetes' API and kustomize, and Compose. A module of its own, for theirs
// are no dependencies of the product; `make test-packaging` runs it.
package manifests
