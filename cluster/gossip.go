package cluster

type gossip struct{}

func (*gossip) poke() {}
