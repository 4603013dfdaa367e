// Package scheduler decides when a schedule is due and whether it fires, given
// the time.
//
// It has two halves. [Compile] turns a [nola.Spec] into a [Compiled], which
// answers which nominal times there are; preview, listing and firing all ask it.
// A [Plan] joins it with the policy and drives the state of one schedule, a
// [nola.Progress]: what fires, what is skipped and why, and when to look again.
//
// # Nominal times
//
// The local clock of a zone is a chain of stretches of constant offset. Inside a
// stretch a cron expression is searched on a plain linear clock; the seams
// between stretches follow the spec's policies for times that do not exist and
// times that exist twice. Intervals lie on a grid, counted from the Unix epoch
// or from an anchor, and know no zone. Coinciding times of several entries are one nominal time.
//
// # What always holds
//
// The package holds no clock, no random source, no goroutine and no lock; what
// it answers depends on its arguments and on the zone database alone. Next is
// strictly after its argument. Jittered times keep the order of nominal times
// and are never early. Every nominal time since a schedule's creation has
// exactly one outcome, or is running, or is later than Progress.Through.
package scheduler
