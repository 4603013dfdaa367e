// Command nolactl turns words on a command line into calls of a NOLA server.
//
// Every command is a node of the tree that root.go builds. A command reads its
// arguments into a request, sends it through the clients of remote.go, and hands
// what comes back to output.go, which knows the formats. Standard output carries
// results alone; notes, progress, questions and errors go to standard error.
//
// The exit code says what to do about a failure:
//
//	0  it worked
//	1  it failed for a reason that no other code names
//	2  the command line, a file or a value is wrong: change it
//	3  what was named does not exist
//	4  the token is missing or does not allow this
//	5  no answer for now: the server is not reachable, overloaded or moving
//	6  it conflicts with what is there already
//	7  the actor's own code answered with an error or trapped
//
// What always holds: text that came from actors or users is stripped of control
// characters before it reaches a terminal, a removal asks first or needs --yes,
// and a command that changes something never repeats it by itself under another
// key.
package main
