"""python -m zslkeras: the console command, where its folder is not on the path."""

from zslkeras.cli.main import main

main()
