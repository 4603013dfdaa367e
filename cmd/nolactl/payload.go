package main

import (
	"os"

	"github.com/spf13/cobra"

	"github.com/nolaproject/nola"
	"github.com/nolaproject/nola/client"
)

// storedPayloadBytesMax bounds a payload that is kept until it is due: of a
// schedule, and of a cast for later.
const storedPayloadBytesMax = 256 << 10

// payloadOf reads a payload: an argument, a file, or standard input where
// either is "-".
func (c *cli) payloadOf(arg *string, file string, limit int64) ([]byte, error) {
	switch {
	case arg != nil && file != "":
		return nil, usage("", "the payload is given twice: as an argument and with -f")
	case arg != nil && *arg != "-":
		if int64(len(*arg)) > limit {
			return nil, usage("", "the payload is longer than the %s that are allowed", bytesOf(limit))
		}
		return []byte(*arg), nil
	case arg == nil && file == "":
		return nil, nil
	case file != "" && file != "-":
		return readFile(file, limit)
	default:
		if c.inIsTerminal {
			c.note("reading the payload from the terminal; end it with Ctrl-D")
		}
		return readAll(c.in, limit, "standard input")
	}
}

func readFile(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, usage("", "cannot read the file: %s", err)
	}
	defer f.Close()
	return readAll(f, limit, name)
}

// callFlags are what invoke, cast and create share.
type callFlags struct {
	file string
	key  string
}

func (f *callFlags) register(cmd *cobra.Command, payload string) {
	cmd.Flags().StringVarP(&f.file, "file", "f", "", payload+" from a file, or from standard input with -")
	cmd.Flags().StringVar(&f.key, "key", "", "idempotency key: the same request under the same key takes effect once")
}

// check refuses a key that no server would take.
func (f *callFlags) check() error {
	if len(f.key) > nola.UserKeyBytesMax {
		return usage("", "--key has %d bytes, at most %d are allowed", len(f.key), nola.UserKeyBytesMax)
	}
	return nil
}

// options are the flags as package client takes them.
func (f *callFlags) options() []client.CallOption {
	if f.key == "" {
		return nil
	}
	return []client.CallOption{client.WithIdempotencyKey(f.key)}
}

// optional is the argument at i, nil if it was left out.
func optional(args []string, i int) *string {
	if i < len(args) {
		return &args[i]
	}
	return nil
}
