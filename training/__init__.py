"""How the zoo's pocket models were made: scenes, training programs, evaluation and export."""
