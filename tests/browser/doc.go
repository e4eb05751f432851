// Package browser looks at the status page in a real Chromium.
//
// It is a module of its own: what drives the browser is no part of the product's
// dependencies. `make test-browser` runs it.
package browser
