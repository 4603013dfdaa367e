// Command bench measures this machine, the product, and other products beside it.
//
//	bench limits                    what the machine itself can do: L1 to L4
//	bench run     [flags]           the product, each row beside the limits of the same minute
//	bench peers   [flags]           other products, taking turns with ours under the same client
//	bench compare OLD.json NEW.json two result files side by side
//
// Machines differ and borrowed ones change by the second, so a figure alone says
// little. Rows are therefore grouped into blocks. A block is measured in rounds:
// limits, every row once, limits, every row once, ..., limits. A ratio is taken
// inside a round, to the mean of the limits at its two ends, and the median of the
// rounds is reported with the lowest and the highest. A block whose limits have
// moved by more than a fifth between its first and its last measurement is void:
// the machine was busy with something else.
//
// What always holds: the load is a closed loop of callers unless the row says
// otherwise, and at most callersMax of them. Every answer is read and checked,
// and the counters are added up at the end of a round: a row with an error or with
// a sum that is off has failed, whatever its rate. Servers are children of this
// program on loopback addresses, keep their data in a temporary directory and are
// ended by their process id; nothing is left when the program ends, also when it
// is interrupted.
//
// The client speaks HTTP/1.1 over one kept connection per caller and knows just
// enough of it (see conn), because on a small machine client and server share the
// cores, and what the client burns the server cannot use.
//
// docs/benchmarks.md says how to run it and how to read it.
package main
