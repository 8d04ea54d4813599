"""`python -m standalone`."""

from standalone.main import main

raise SystemExit(main())
