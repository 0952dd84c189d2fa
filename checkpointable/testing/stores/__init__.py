"""The kit for stores: `kit` has `StoreTests` and `verify_store`, `faulty` a store that fails."""
