"""What keeps streamd alive on a host: composition, supervision, control. The shell around it
all."""
