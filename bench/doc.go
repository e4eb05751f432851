// Command bench measures what the agent costs, beside the least that the work can
// cost (bench/floor) and beside other agents, all in one run on one machine.
//
//	genlog (files, a writer) --> agent: ours, floor, vlagent, otelcol --> sink (checks each line)
//	engine (Docker's API) -------^ ours
//
// It needs neither Docker nor a store. The agent has a core of its own where there are
// two; writer and sink, processes of their own, have the others. docs/measuring.md
// says how to run it and how to read what it prints.
//
//	bench [flags]            measures; -h lists the flags
//	bench report [flags]     makes the report of results that were kept
//	bench sink, bench write  are its own children
package main
