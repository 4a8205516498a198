// Command count prints how many rows of the contract were ticked by the tests that
// wrote into the directory it is given, and fails unless all were.
package main

import (
	"fmt"
	"os"

	"quorate/internal/contract"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: count DIRECTORY")
		os.Exit(2)
	}
	missing, err := contract.Tally(os.Stdout, os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "count:", err)
	}
	if err != nil || missing > 0 {
		os.Exit(1)
	}
}
