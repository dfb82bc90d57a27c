package lab

import (
	"errors"
	"fmt"
	"os"

	"github.com/sidewinder-net/sidewinder/test/lab/tree"
)

// Main runs a package's tests (a *testing.M) inside a process tree: for TestMain. Where the
// kernel refuses the tree, the tests run outside and those that need it skip.
func Main(m interface{ Run() int }) {
	tree.Dispatch()
	err := tree.Run(tree.Options{Description: "tests"}, func(tree.Inside) error {
		giveThreads()
		os.Exit(m.Run())
		return nil
	})
	var exit *tree.ExitError
	switch {
	case errors.As(err, &exit):
		if exit.Dir != "" {
			fmt.Fprintf(os.Stderr, "logs of the labs: %s (sidewinder-lab down %s removes them)\n", exit.Dir, tree.ID(exit.Dir))
		}
		os.Exit(exit.Code)
	case errors.Is(err, tree.ErrRefused):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(m.Run())
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
