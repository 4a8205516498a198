package neon

// PreferredAZsRequest is the body of PUT /control/v1/preferred_azs; nil clears.
type PreferredAZsRequest map[ShardID]*AZ

// UnmarshalJSON reads an object; of a shard that stands twice, the last counts.
func (r *PreferredAZsRequest) UnmarshalJSON(b []byte) error {
	*r = PreferredAZsRequest{}
	return eachField(b, func(key string, raw []byte) error {
		id, err := ParseShardID(key)
		if err != nil {
			return err
		}
		var az *AZ
		err = value(raw, &az)
		(*r)[id] = az
		return err
	})
}

// PreferredAZsResponse lists the shards that were found.
type PreferredAZsResponse struct {
	Updated List[ShardID] `json:"updated"`
}
