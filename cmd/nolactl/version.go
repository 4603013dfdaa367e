package main

import (
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

func (c *cli) versionCommand() *cobra.Command {
	return leaf("version", "Tell the version of this program",
		`Tell the version of this program. "nolactl node list" tells that of the servers.`,
		`nolactl version
nolactl version -o json`,
		func(*cobra.Command, []string) error {
			v := buildVersion()
			switch c.output {
			case formatJSON, formatJSONL:
				return json.NewEncoder(c.out).Encode(map[string]string{"version": v, "go": runtime.Version()})
			case formatName:
				fmt.Fprintln(c.out, v)
			case formatYAML:
				fmt.Fprintf(c.out, "go: %s\nversion: %s\n", runtime.Version(), v)
			default:
				fmt.Fprintf(c.out, "nolactl %s, %s\n", v, runtime.Version())
			}
			return nil
		})
}

// buildVersion is what the build recorded: a release, or the commit.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}
