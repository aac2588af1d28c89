"""The gym: every algorithm file on the embedded tiny models, under one budget, and a report of what each gained.

`tasks` reads configs/gym and says what a run is; `runs` does them, one after the other in this process, and keeps a
JSON file of each; `report` and `picture` make one table and one picture of the files of any number of folders.
"""
