// Package loki is the sink that delivers batches to Loki (or to what speaks its
// push protocol): it encodes, compresses and POSTs them and says which lines
// the store has taken, which it never will, and which are to be tried again.
//
//	dispatch --Push(batch)--> plan -> encode + snappy -> POST -> classify -> apply
//	    ^                       ^                                              |
//	    |                       +--- what is left: split, alone, again <-------+
//	    +--- Outcome, states of the parts and Refusals in the batch <----------+
//
// Several requests are on their way at once where the store takes its time to answer, of
// different streams (attempt.run, window.go). All is done by the goroutine that pushes.
//
// A Push is one attempt: it never sleeps and never repeats what failed for a
// reason that time may heal; dispatch owns pauses, order between batches, spool
// and dead letters. Within an attempt several requests may be needed, because
// Loki tells only of the last stream's refusal (see plan.go), because a batch
// can be larger than a request may be, and to find the line that is refused
// without a reason that we know.
//
// The package knows nothing of disk or positions. It starts no goroutine of its
// own; those of net/http's connections to a proxy, and the timer of idle ones, end
// with Close.
//
// Sources of the facts about Loki (3.6): pkg/distributor/{distributor,
// validator}.go, pkg/ingester/{instance,stream}.go, pkg/validation/validate.go,
// pkg/chunkenc/interface.go, pkg/util/errors.go. Only their behaviour is used.
package loki
