// Package docs runs what the documents tell readers to type. Its test builds the
// programs, starts a server on a free port and works through README.md,
// docs/quickstart.md and docs/schedules.md from top to bottom, each against a
// server of its own, and through docs/testing.md in a Go module of its own. What
// docs/actors.md registers is compiled:
//
//   - A block marked `sh` is run, command by command.
//   - What stands behind `# ->` on a command's line is what the command prints.
//   - A block marked `text` right behind an `sh` block is what its last command
//     prints.
//   - A block marked `go NAME` or `yaml NAME` is written to the file NAME.
//   - A block marked `console` is for a terminal of its own, and not run.
//
// In what is expected, … stands for any text; a line of nothing else stands for
// any lines.
package docs
