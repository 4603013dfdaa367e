package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	c := &cli{
		env:          os.Getenv,
		in:           os.Stdin,
		out:          os.Stdout,
		errOut:       os.Stderr,
		inIsTerminal: isTerminal(os.Stdin), outIsTerminal: isTerminal(os.Stdout), errIsTerminal: isTerminal(os.Stderr),
		now:   time.Now,
		local: time.Local,
	}
	ended := make(chan int, 1)
	go func() { ended <- c.run(ctx, os.Args[1:]) }() // ends with the process at the latest
	select {
	case code := <-ended:
		os.Exit(code)
	case <-ctx.Done():
	}
	stop() // a second signal ends the program at once
	select {
	case code := <-ended:
		os.Exit(code)
	case <-time.After(interruptGrace):
		os.Exit(exitFailure)
	}
}

// interruptGrace is how long a command may take to tidy up after a signal. One
// that waits for input cannot notice the signal, and is left behind.
const interruptGrace = 200 * time.Millisecond

// run obeys one command line and returns the exit code.
func (c *cli) run(ctx context.Context, args []string) int {
	root := c.rootCommand()
	root.SetArgs(args)
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.errOut)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	if errors.Is(err, syscall.EPIPE) {
		return exitOK // who read the output has seen enough
	}
	p := c.explain(err)
	p.print(c.errOut)
	return p.code
}

// isTerminal tells whether a person sits at the other end of f.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}
