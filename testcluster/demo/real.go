package demo

import (
	"errors"

	"quorate/testcluster"
)

func newReal(Options, *testcluster.Cluster) (servers, error) { return nil, errors.New("x") }
