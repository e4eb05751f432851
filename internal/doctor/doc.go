// Package doctor looks at the set-up of a machine as an agent would find it, and
// says of each thing whether it is right, and what to do if it is not.
//
//	                 +- engine: Docker's API ----> logs: files, directory -+
//	configuration ---+- kernel: limits            -+                       +--> checks, in a
//	                 +- data_dir: probe, space    -+-----------------------+    fixed order
//	                 +- store: a push of nothing  -+                       |
//	                 +- agent: its own /health    -+-----------------------+
//
// What is found is gathered into facts, side by side and each under a time limit;
// what the facts mean is said by pure functions. How a container is captured is
// decided by the functions of internal/monitors that the agent decides with.
//
// It disturbs no agent: it only reads, but for a probe file in data_dir that it
// removes, and a line to the store if that is asked for.
package doctor
